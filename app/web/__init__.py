"""HTTP mechanics of the API: middleware, time-outs, problems, pagination. No pages: a console belongs in app/api."""
