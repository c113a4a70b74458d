"""imagefarm: an image origin server.

The map of the package; imports only go down::

    tap         the twistd sub-commands: master, slave, resizer, farm
    app         the composition root: configuration -> services
    resources   virtual hosts, locations, leaves     process  pidfiles, logs, supervision
    proxy  fastcgi  cache  image                     siblings, strangers to each other
    http        messages, the HTTP/1.1 engine, filters
    config      nginx.conf text -> typed, frozen values

The life of a request: ``http.connection`` parses it and hands a `Request` to the dispatcher in
``resources``, which finds the virtual host and the location and asks the leaf for a `Response`
value; filters transform it; the connection writes it and the access log gets its line.
``docs/architecture.md`` tells it at length.
"""

__version__ = "0.1.0"
