"""The shelves are filled from the catalogue of example_flask_app."""

from dataclasses import asdict

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from example_flask_app.catalogue import PRODUCTS


def fill(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create(product(**asdict(item)) for item in PRODUCTS.values())


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
