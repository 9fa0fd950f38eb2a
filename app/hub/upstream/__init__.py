"""Pull-through: models that are not here are copied from another hub when somebody asks for them.

`remote` speaks to the other hub, `mirror` copies a revision's names and small files, `downloads` fetches large files
when they are asked for, `store` makes the rest of the service see one store. A copy is an ordinary, read-only
repository.
"""
