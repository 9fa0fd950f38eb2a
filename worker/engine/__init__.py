"""The engine: the science. Paths and a recipe in, files and events out; knows neither HTTP nor a database."""

import os

# OpenMP reads this once, when torch is first imported. Its threads spin while they wait by default, which on a machine
# that is shared with anything else (another worker, the API, a database) costs far more than sleeping: with two busy
# neighbours on two cores a forward pass took 11 s spinning and 1.9 s sleeping, and nothing is lost on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
