"""A minimal site of Django REST framework, to be run in a process of its own.

`python drf_app.py DATABASE` serves the table `log` of a SQLite file at
`/offset/`, `/page/` and `/newest/`, with the framework's own pagination, and
says its address. `?since=` filters by time, as views of this framework do it.
"""

# The framework has no types.
# mypy: disable-error-code="import-untyped, misc"
from __future__ import annotations

import sys
from datetime import timedelta, timezone
from typing import Any

import django
from django.conf import settings

MAX_PAGE_SIZE = 40
"""Both paginations cap what they are asked for at this, and say nothing of it."""

if __name__ == "__main__":
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
        INSTALLED_APPS=["rest_framework"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": [],
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            "UNAUTHENTICATED_USER": None,
        },
        ROOT_URLCONF="__main__",
        SECRET_KEY="for this process only",
        USE_TZ=True,
    )
    django.setup()

    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application
    from django.db import models
    from django.urls import path
    from rest_framework import generics, pagination, serializers

    class Entry(models.Model):
        ts = models.DateTimeField()
        action = models.TextField()
        details = models.TextField(null=True)  # noqa: DJ001 - null is what the test is after
        serial = models.BigIntegerField()
        weight = models.FloatField()

        class Meta:
            """The table is the test's."""

            app_label = "packages"
            db_table = "log"
            managed = False

        def __str__(self) -> str:
            return f"{self.ts} {self.action}"

    class EntrySerializer(serializers.ModelSerializer):
        # An offset of its own: what is shown, and what is filtered by, differ as text.
        ts = serializers.DateTimeField(default_timezone=timezone(timedelta(hours=2)))

        class Meta:
            """All columns."""

            model = Entry
            fields = ("id", "ts", "action", "details", "serial", "weight")

    class Offsets(pagination.LimitOffsetPagination):
        max_limit = MAX_PAGE_SIZE

    class Pages(pagination.PageNumberPagination):
        page_size_query_param = "page_size"
        max_page_size = MAX_PAGE_SIZE

    class EntryList(generics.ListAPIView):
        serializer_class = EntrySerializer
        order: tuple[str, ...] = ("id",)

        def get_queryset(self) -> Any:
            entries = Entry.objects.order_by(*self.order)
            since = self.request.query_params.get("since")
            if since is None:
                return entries
            return entries.filter(ts__gte=serializers.DateTimeField().run_validation(since))

    urlpatterns = [
        path("offset/", EntryList.as_view(pagination_class=Offsets)),
        path("page/", EntryList.as_view(pagination_class=Pages)),
        path("newest/", EntryList.as_view(pagination_class=Pages, order=("-ts", "-id"))),
    ]

    class Handler(WSGIRequestHandler):
        def address_string(self) -> str:
            # The inherited one may ask a resolver for the client's name.
            return str(self.client_address[0])

    server = ThreadedWSGIServer(("127.0.0.1", 0), Handler)
    server.set_app(get_wsgi_application())
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
