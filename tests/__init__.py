"""The tests mirror the tree. While they run, signatures are checked: shapes by jaxtyping, types by beartype."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy
