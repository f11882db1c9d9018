"""What the shop sells."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import MinValueValidator
from django.db import models


class Product(models.Model):
    slug: models.SlugField[str, str] = models.SlugField(
        unique=True, help_text="Carts know the product by it, so it cannot be changed later."
    )
    name: models.CharField[str, str] = models.CharField(max_length=80)
    kind: models.CharField[str, str] = models.CharField(
        max_length=80, help_text="What it is, and how much of it: Espresso beans, 250 g."
    )
    blurb: models.CharField[str, str] = models.CharField(max_length=200)
    pence: models.PositiveIntegerField[int, int] = models.PositiveIntegerField(
        "price in pence", validators=[MinValueValidator(1)], help_text="So that sums stay exact."
    )

    class Meta:
        ordering: ClassVar = ["pk"]

    def __str__(self) -> str:
        return self.name
