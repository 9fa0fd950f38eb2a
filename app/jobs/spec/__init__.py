"""The request: what a client may ask for, field by field.

Whatever is left out (or null) is filled in by `app.jobs.resolution` before the job is stored. A resolved specification
is itself a valid request: sending it again asks for exactly the same run. Choices that the contract names but this
version does not offer are refused with the list of those that it does.

`request` is the whole of it; `compression` are the sections that the checkpoint follows from, `judgement` those that
say how it is measured and what it has to reach; `section` is what all have in common.
"""
