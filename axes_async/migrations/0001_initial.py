import django.db.models.expressions
import django.utils.timezone
from django.db import migrations, models

import axes_async.fields
import axes_async.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AccessFailureLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("username", models.CharField(max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(null=True, verbose_name="IP address")),
                ("user_agent", models.CharField(blank=True, default="", max_length=255, verbose_name="user agent")),
                ("http_accept", models.CharField(blank=True, default="", max_length=255, verbose_name="HTTP accept")),
                ("path_info", models.CharField(blank=True, default="", max_length=255, verbose_name="path")),
                (
                    "attempt_time",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name="attempt time"),
                ),
                ("event_id", models.UUIDField(default=axes_async.models.new_event_id, editable=False, unique=True)),
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
                "indexes": [
                    models.Index(
                        fields=["username", "attempt_time"],
                        name="axes_async_failure_username",
                        opclasses=("varchar_pattern_ops", "timestamptz_ops"),
                    ),
                    models.Index(fields=["ip_address", "attempt_time"], name="axes_async_failure_address"),
                    models.Index(
                        condition=models.Q(("locked_out", True)),
                        fields=["attempt_time", "repeats"],
                        name="axes_async_failure_locked",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AccessReset",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reset_time", models.DateTimeField(db_index=True, verbose_name="reset time")),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("all", "everything"),
                            ("both", "all values given"),
                            ("either", "any value given"),
                            ("rows", "chosen attempts"),
                            ("counter", "one lockout"),
                        ],
                        max_length=8,
                        verbose_name="scope",
                    ),
                ),
                ("username", models.CharField(max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(null=True, verbose_name="IP address")),
                ("attempts", models.PositiveIntegerField(default=0, verbose_name="attempts")),
                ("counters", models.PositiveIntegerField(default=0, verbose_name="counters")),
                ("by", models.CharField(blank=True, default="", max_length=255, verbose_name="by")),
                ("reason", models.CharField(blank=True, default="", max_length=255, verbose_name="reason")),
            ],
            options={
                "verbose_name": "unlock",
                "verbose_name_plural": "unlocks",
                "ordering": ("-reset_time", "-id"),
            },
        ),
        migrations.CreateModel(
            name="AttemptRollup",
            fields=[
                ("minute", models.DateTimeField(primary_key=True, serialize=False)),
                ("failed", models.PositiveIntegerField(default=0, help_text="Wrong passwords.")),
                ("turned_away", models.PositiveIntegerField(default=0, help_text="Attempts that met a lockout.")),
                ("logged_in", models.PositiveIntegerField(default=0)),
                (
                    "after_failures",
                    models.PositiveIntegerField(default=0, help_text="Logins of names whose failures still counted."),
                ),
                (
                    "lockouts",
                    models.TextField(
                        default="{}", help_text="How many counters were locked, by their parameters; JSON."
                    ),
                ),
                (
                    "names",
                    models.BinaryField(
                        default=b"", help_text="A sketch of the distinct names of those that did not log in."
                    ),
                ),
                ("addresses", models.BinaryField(default=b"", help_text="The same of their addresses.")),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="DrainCursor",
            fields=[
                ("name", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("position", models.CharField(default="0-0", max_length=48)),
                ("drained_at", models.DateTimeField(null=True)),
                ("expired_at", models.DateTimeField(null=True)),
                (
                    "totals",
                    models.JSONField(
                        default=dict, help_text="What was counted since the beginning: tasks.projection.totals."
                    ),
                ),
                (
                    "again",
                    models.JSONField(
                        default=dict,
                        help_text="Ids of an imported table that the next import looks for: tasks.importing.position.",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Notice",
            fields=[
                ("key", axes_async.fields.DigestField(max_length=22, primary_key=True, serialize=False)),
                ("until", models.DateTimeField(db_index=True)),
                (
                    "waiting",
                    models.TextField(
                        default="", help_text="What is to be told then, as JSON; of several things, the last."
                    ),
                ),
                ("count", models.PositiveIntegerField(default=0, help_text="How many there were.")),
                (
                    "channel",
                    models.CharField(
                        default="", help_text="Over what that is told: one of conf.CHANNELS.", max_length=8
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="OutboxEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.UUIDField(unique=True)),
                ("wire", models.TextField(help_text="The event, as AttemptEvent.wire() writes it.")),
            ],
        ),
        migrations.CreateModel(
            name="StoreState",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("generation", models.BigIntegerField(default=0)),
                ("mode", models.CharField(default="store", max_length=8)),
                (
                    "void_generation",
                    models.BigIntegerField(default=-1, help_text="Counters and events up to it count nothing."),
                ),
                ("voided_at", models.DateTimeField(help_text="When everything was reset last.", null=True)),
                (
                    "void_attempts_until",
                    models.DateTimeField(
                        help_text="The last attempt that this reset has voided; null: no void row is left to delete.",
                        null=True,
                    ),
                ),
                (
                    "synced",
                    models.BigIntegerField(
                        default=0, help_text="The generation of the last sync that drained the store."
                    ),
                ),
                ("sync_until", models.DateTimeField(help_text="Until when another sync keeps away.", null=True)),
                ("syncs", models.BigIntegerField(default=0, help_text="How many full syncs were completed.")),
                (
                    "pushes",
                    models.BigIntegerField(default=0, help_text="How many portions of dirty counters were pushed."),
                ),
                (
                    "reset_all_pending",
                    models.BooleanField(default=False, help_text="Whether a reset of everything has only begun."),
                ),
            ],
        ),
        migrations.CreateModel(
            name="AccessAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("username", models.CharField(max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(null=True, verbose_name="IP address")),
                ("user_agent", models.CharField(blank=True, default="", max_length=255, verbose_name="user agent")),
                ("http_accept", models.CharField(blank=True, default="", max_length=255, verbose_name="HTTP accept")),
                ("path_info", models.CharField(blank=True, default="", max_length=255, verbose_name="path")),
                (
                    "attempt_time",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name="attempt time"),
                ),
                ("key", axes_async.fields.ComputedDigestField(editable=False, max_length=22)),
                ("username_key", axes_async.fields.ComputedDigestField(db_index=True, editable=False, max_length=22)),
                ("ip_address_key", axes_async.fields.ComputedDigestField(editable=False, max_length=22)),
                ("user_agent_key", axes_async.fields.ComputedDigestField(editable=False, max_length=22)),
                (
                    "first_attempt_time",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="first attempt time"),
                ),
                ("failures_since_start", models.PositiveIntegerField(verbose_name="failed logins")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires at")),
            ],
            options={
                "verbose_name": "access attempt",
                "verbose_name_plural": "access attempts",
                "ordering": ("-attempt_time", "-id"),
                "abstract": False,
                "indexes": [
                    models.Index(
                        condition=models.Q(("expires_at", None), _negated=True),
                        fields=["expires_at"],
                        name="axes_async_attempt_expiry",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("ip_address_key", "key"), name="axes_async_one_per_client")
                ],
            },
        ),
        migrations.CreateModel(
            name="AccessLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("username", models.CharField(max_length=255, null=True, verbose_name="username")),
                ("ip_address", models.GenericIPAddressField(null=True, verbose_name="IP address")),
                ("user_agent", models.CharField(blank=True, default="", max_length=255, verbose_name="user agent")),
                ("http_accept", models.CharField(blank=True, default="", max_length=255, verbose_name="HTTP accept")),
                ("path_info", models.CharField(blank=True, default="", max_length=255, verbose_name="path")),
                (
                    "attempt_time",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name="attempt time"),
                ),
                ("event_id", models.UUIDField(default=axes_async.models.new_event_id, editable=False, unique=True)),
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
                "indexes": [
                    models.Index(
                        condition=models.Q(("session_hash", ""), _negated=True),
                        fields=["session_hash"],
                        name="axes_async_log_session",
                    ),
                    models.Index(
                        fields=["username", "attempt_time"],
                        name="axes_async_log_username",
                        opclasses=("varchar_pattern_ops", "timestamptz_ops"),
                    ),
                    models.Index(fields=["ip_address", "attempt_time"], name="axes_async_log_address"),
                ],
            },
        ),
        migrations.CreateModel(
            name="AttemptCounter",
            fields=[
                ("digest", axes_async.fields.DigestField(max_length=22, primary_key=True, serialize=False)),
                (
                    "parameters",
                    models.PositiveSmallIntegerField(help_text="A bit for each of counters.rules.PARAMETERS."),
                ),
                ("username_key", axes_async.fields.DigestField(default="", max_length=22)),
                ("ip_address_key", axes_async.fields.DigestField(default="", max_length=22)),
                ("user_agent_key", axes_async.fields.DigestField(default="", max_length=22)),
                ("username", models.CharField(max_length=255, null=True)),
                ("ip_address", models.GenericIPAddressField(null=True)),
                ("failures", models.PositiveIntegerField(default=0, help_text="The active failures.")),
                ("since", models.DateTimeField(help_text="When the first of them was counted.", null=True)),
                ("limit", models.PositiveIntegerField(default=0, help_text="The limit in force; 0: it never locks.")),
                (
                    "expires_at",
                    models.DateTimeField(help_text="When the counter starts over; null: only by a reset.", null=True),
                ),
                ("locked_until", models.DateTimeField(help_text="When the lockout of a tier ends.", null=True)),
                (
                    "ends",
                    models.TextField(
                        default="", help_text="When each failure expires (epoch ms), under a rolling window."
                    ),
                ),
                (
                    "blocked",
                    models.PositiveIntegerField(default=0, help_text="Attempts that the lockout has turned away."),
                ),
                ("changed_at", models.DateTimeField(help_text="When it was changed last, by the clock of the store.")),
                ("forgiven_at", models.DateTimeField(help_text="When a reset took failures back last.", null=True)),
                (
                    "reservations",
                    models.TextField(default="", help_text="Made while the database decided: token=end of the lease."),
                ),
                (
                    "generation",
                    models.BigIntegerField(default=0, help_text="The generation in which it began to count."),
                ),
                (
                    "void_generation",
                    models.BigIntegerField(default=-1, help_text="Events up to this generation count nothing here."),
                ),
                ("dirty", models.BooleanField(default=False, help_text="Whether the store's copy may differ.")),
                (
                    "near_limit",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.ExpressionWrapper(
                            models.Q(
                                ("failures__gt", 0),
                                (
                                    "failures__gte",
                                    django.db.models.expressions.CombinedExpression(
                                        django.db.models.expressions.CombinedExpression(
                                            models.F("limit"),
                                            "-",
                                            django.db.models.expressions.CombinedExpression(
                                                models.F("limit"), "/", models.Value(5)
                                            ),
                                        ),
                                        "-",
                                        models.Value(1),
                                    ),
                                ),
                                ("limit__gt", 0),
                            ),
                            models.BooleanField(),
                        ),
                        help_text="Whether it is locked, or lacks at most one failure and a fifth of the limit.",
                        output_field=models.BooleanField(),
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("parameters__in", [2, 3, 6, 7])),
                        fields=["parameters", "username_key"],
                        name="axes_async_by_username",
                    ),
                    models.Index(
                        condition=models.Q(("parameters__in", [3, 5, 7])),
                        fields=["parameters", "ip_address_key"],
                        name="axes_async_by_address",
                    ),
                    models.Index(
                        condition=models.Q(("parameters", 4)), fields=["user_agent_key"], name="axes_async_by_agent"
                    ),
                    models.Index(
                        condition=models.Q(("expires_at", None), _negated=True),
                        fields=["expires_at"],
                        name="axes_async_counter_expiry",
                    ),
                    models.Index(
                        condition=models.Q(("dirty", True)), fields=["dirty", "digest"], name="axes_async_dirty"
                    ),
                    models.Index(condition=models.Q(("failures", 0)), fields=["failures"], name="axes_async_empty"),
                    models.Index(
                        condition=models.Q(("near_limit", True)),
                        fields=["near_limit", "changed_at"],
                        name="axes_async_near",
                    ),
                    models.Index(
                        condition=models.Q(("near_limit", True)),
                        fields=["near_limit", "parameters", "changed_at"],
                        name="axes_async_near_by_rule",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Lockout",
            fields=[],
            options={
                "verbose_name": "lockout",
                "verbose_name_plural": " Lockouts",
                "proxy": True,
                "default_permissions": ("view", "unlock"),
                "indexes": [],
                "constraints": [],
            },
            bases=("axes_async.attemptcounter",),
        ),
        migrations.CreateModel(
            name="Dashboard",
            fields=[],
            options={
                "verbose_name": "dashboard",
                "verbose_name_plural": "dashboard",
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("axes_async.attemptrollup",),
        ),
        migrations.CreateModel(
            name="TopValues",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("hour", models.DateTimeField()),
                ("kind", models.CharField(max_length=16)),
                ("counts", models.TextField(default="{}", help_text="How often each, at least; JSON.")),
            ],
            options={
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=("hour", "kind"), name="axes_async_top_of_an_hour")],
            },
        ),
    ]
