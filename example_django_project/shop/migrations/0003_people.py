"""Who can sign in to the demo: grace buys, and ada sees the admin, too. Their password is on the sign-in page."""

from django.contrib.auth.hashers import make_password
from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from example_flask_app.house import PASSWORD


def hire(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    user = apps.get_model("auth", "User")
    password = make_password(PASSWORD)
    user.objects.create(username="grace", password=password)
    user.objects.create(username="ada", password=password, is_staff=True, is_superuser=True)


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_stock"), ("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(hire, migrations.RunPython.noop)]
