"""The tables."""

from django.db import migrations, models

import axes_async.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AccessAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("username", models.CharField(db_index=True, max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(db_index=True, null=True, verbose_name="IP address")),
                ("user_agent", models.CharField(max_length=255, verbose_name="user agent")),
                ("http_accept", models.CharField(max_length=255, verbose_name="HTTP accept")),
                ("path_info", models.CharField(max_length=255, verbose_name="path")),
                ("attempt_time", models.DateTimeField(db_index=True, verbose_name="attempt time")),
                ("key", axes_async.fields.DigestField(editable=False, max_length=22, unique=True)),
                ("username_key", axes_async.fields.DigestField(db_index=True, editable=False, max_length=22)),
                ("ip_address_key", axes_async.fields.DigestField(db_index=True, editable=False, max_length=22)),
                ("user_agent_key", axes_async.fields.DigestField(editable=False, max_length=22)),
                ("first_attempt_time", models.DateTimeField(verbose_name="first attempt time")),
                ("failures_since_start", models.PositiveIntegerField(verbose_name="failed logins")),
                ("expires_at", models.DateTimeField(blank=True, db_index=True, null=True, verbose_name="expires at")),
            ],
            options={
                "verbose_name": "access attempt",
                "verbose_name_plural": "access attempts",
                "ordering": ("-attempt_time", "-id"),
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="AccessFailureLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("username", models.CharField(db_index=True, max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(db_index=True, null=True, verbose_name="IP address")),
                ("user_agent", models.CharField(max_length=255, verbose_name="user agent")),
                ("http_accept", models.CharField(max_length=255, verbose_name="HTTP accept")),
                ("path_info", models.CharField(max_length=255, verbose_name="path")),
                ("attempt_time", models.DateTimeField(db_index=True, verbose_name="attempt time")),
                ("event_id", models.UUIDField(editable=False, unique=True)),
                ("locked_out", models.BooleanField(default=False, verbose_name="locked out")),
                (
                    "repeats",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="How many attempts the lockout has turned away by then, this one included; rows are kept of the first ten and then at each doubling. 0: the password was looked at.",
                        verbose_name="turned away so far",
                    ),
                ),
            ],
            options={
                "verbose_name": "access failure",
                "verbose_name_plural": "access failures",
                "ordering": ("-attempt_time", "-id"),
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="AccessReset",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.UUIDField(unique=True)),
                ("reset_time", models.DateTimeField()),
                ("reach", models.JSONField(default=dict)),
                ("attempts", models.PositiveIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="AttemptCounter",
            fields=[
                ("digest", axes_async.fields.DigestField(max_length=22, primary_key=True, serialize=False)),
                ("parameters", models.PositiveSmallIntegerField(help_text="A bit for each of policy.PARAMETERS.")),
                ("username_key", axes_async.fields.DigestField(default="", max_length=22)),
                ("ip_address_key", axes_async.fields.DigestField(default="", max_length=22)),
                ("user_agent_key", axes_async.fields.DigestField(default="", max_length=22)),
                ("username", models.CharField(max_length=255, null=True)),
                ("ip_address", models.GenericIPAddressField(null=True)),
                ("epoch", models.BigIntegerField()),
                ("failures", models.PositiveIntegerField()),
                ("lifted", models.IntegerField(default=0)),
                ("limit", models.PositiveIntegerField()),
                ("expires_at", models.DateTimeField(db_index=True, null=True)),
                (
                    "locked_until",
                    models.DateTimeField(null=True, help_text="When a lockout ends that ends before the counter does."),
                ),
                (
                    "ends",
                    models.TextField(
                        default="", help_text="When each failure ends, in epoch milliseconds, where each does so alone."
                    ),
                ),
                ("updated_at", models.DateTimeField()),
                ("blocked", models.PositiveIntegerField(default=0)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["parameters", "username_key"], name="axes_async_by_username"),
                    models.Index(fields=["parameters", "ip_address_key"], name="axes_async_by_address"),
                    models.Index(fields=["parameters", "user_agent_key"], name="axes_async_by_agent"),
                ],
            },
        ),
        migrations.CreateModel(
            name="DrainCursor",
            fields=[
                ("name", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("position", models.CharField(default="0-0", max_length=48)),
                (
                    "outbox",
                    models.CharField(
                        default="", help_text="Name of the outbox that the position is one of.", max_length=40
                    ),
                ),
                ("moved_at", models.DateTimeField(null=True)),
                ("drained_at", models.DateTimeField(null=True)),
                ("expired_at", models.DateTimeField(null=True)),
                (
                    "returns",
                    models.PositiveIntegerField(
                        default=0, help_text="How often the store has been used again after a loss."
                    ),
                ),
                (
                    "unmerged",
                    models.BooleanField(
                        default=False, help_text="Whether the store has yet to be told of what was counted here."
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="AccessLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("username", models.CharField(db_index=True, max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(db_index=True, null=True, verbose_name="IP address")),
                ("user_agent", models.CharField(max_length=255, verbose_name="user agent")),
                ("http_accept", models.CharField(max_length=255, verbose_name="HTTP accept")),
                ("path_info", models.CharField(max_length=255, verbose_name="path")),
                ("attempt_time", models.DateTimeField(db_index=True, verbose_name="attempt time")),
                ("event_id", models.UUIDField(editable=False, unique=True)),
                ("logout_time", models.DateTimeField(blank=True, null=True, verbose_name="logout time")),
                (
                    "session_hash",
                    models.CharField(blank=True, default="", max_length=64, verbose_name="session key hash (SHA-256)"),
                ),
            ],
            options={
                "verbose_name": "access log",
                "verbose_name_plural": "access logs",
                "ordering": ("-attempt_time", "-id"),
                "abstract": False,
                "indexes": [models.Index(fields=["session_hash"], name="axes_async_log_session")],
            },
        ),
        migrations.CreateModel(
            name="AttemptPlace",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("digest", axes_async.fields.DigestField(db_index=True, max_length=22)),
                ("token", models.CharField(max_length=32)),
                ("ends_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("digest", "token"), name="axes_async_place")],
            },
        ),
    ]
