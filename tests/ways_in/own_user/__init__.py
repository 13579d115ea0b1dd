"""A site whose users are known by their e-mail address, in an app that imports axes_async."""
