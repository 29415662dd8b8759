"""Certification of the schedulers of a command line: one after another, or many on all cores."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from diffexp.certify.checks import certify
from diffexp.certify.outcome import Certificate
from diffexp.certify.overview import in_order, table, write_index
from diffexp.certify.page import MARKS, write_certificate
from diffexp.certify.request import Job, Request
from diffexp.errors import InputError


def run_request(request: Request) -> bool:
    """Certify, write the files and print the result; returns whether everything passed.

    Raises:
        InputError: a scheduler that accepts none of the models.
    """
    torch.set_num_threads(1)
    certificates, refused = [], []
    for job, made in _made(request):
        if isinstance(made, InputError):
            if not request.everything:
                raise made
            refused.append(f"skipped: {job.label}: {made}")
            continue
        certificates.append(made)
        folder = write_certificate(made, request.out)
        if sys.stderr.isatty():
            place = f"{len(certificates)}/{len(request.jobs)}"
            print(f"{place} {made.name} ({made.seconds:.1f} s) {made.verdict}", file=sys.stderr)
        if len(request.jobs) == 1:
            print("\n".join(summary(made)))
            print(f"certificate: {folder}")
    if len(request.jobs) > 1:
        certificates = in_order(certificates)
        print("\n".join([*table(certificates, shutil.get_terminal_size((160, 24)).columns), *refused]))
        print(f"certificates: {write_index(certificates, request.out)}")
    return all(one.passed for one in certificates)


def summary(certificate: Certificate) -> list[str]:
    """Return one line for every check, and the verdict."""
    width = max(map(len, certificate.outcomes))
    lines = [f"{MARKS[one.verdict]} {name:{width}}  {one.sentence}" for name, one in certificate.outcomes.items()]
    return [*lines, f"{certificate.name}: {certificate.verdict} ({certificate.seconds:.1f} s)"]


def _made(request: Request) -> Iterator[tuple[Job, Certificate | InputError]]:
    """Yield the certificate of every job when it is ready, or why there is none."""
    workers = min(len(request.jobs), os.cpu_count() or 1)
    if workers == 1 or len(request.jobs) < 4:
        for job in request.jobs:
            yield job, _certified(job)
        return
    # Fresh processes: torch does not survive a fork of a process that has used it.
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        try:
            pending = {pool.submit(_certified, job): job for job in request.jobs}
            for done in as_completed(pending):
                yield pending[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _certified(job: Job) -> Certificate | InputError:
    try:
        return certify(job.name, **job.options)
    except InputError as error:
        return error
