"""The tests of imagefarm; `trial tests` runs them all."""

from hypothesis import HealthCheck, settings

# In a fresh clone the first text that is drawn takes seconds (hypothesis makes its tables of
# Unicode then), and on a busy machine any example may: that is no failure.
settings.register_profile("imagefarm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("imagefarm")
