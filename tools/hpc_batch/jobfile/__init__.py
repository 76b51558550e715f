"""The job file and its answer, as text.

YAML begins and ends here. Nothing is ever constructed from it: a job file is read as a tree of
texts, exactly as they were written, so that neither a tag nor a number of 5,000 digits can do
anything; and what we write is read back the same by any YAML 1.1 or 1.2 reader.

    tree         bytes -> a tree of texts with lines, or why not; limits before anything expensive
    nodes        what such a tree is made of
    parsing      a tree -> Description, or every problem at once; whether a drop has settled
    writing      texts and mappings -> YAML; the job files of our client
    answers      the `.finished` and `.submitted` files, to and from bytes
    streams      bytes of a job's stdout and stderr -> text

Standard library and PyYAML only: the client stands on this package.
"""

from __future__ import annotations

from hpc_batch.jobfile.answers import answer_text, echo, echo_of, read_answer, submitted_text
from hpc_batch.jobfile.parsing import (
    JOB_BYTES,
    Description,
    check_names,
    examine,
    parse,
    settled,
    told,
)
from hpc_batch.jobfile.streams import cut, decode
from hpc_batch.jobfile.writing import dump_job

__all__ = [
    "JOB_BYTES",
    "Description",
    "answer_text",
    "check_names",
    "cut",
    "decode",
    "dump_job",
    "echo",
    "echo_of",
    "examine",
    "parse",
    "read_answer",
    "settled",
    "submitted_text",
    "told",
]
