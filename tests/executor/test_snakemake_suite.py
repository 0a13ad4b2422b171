"""Snakemake's own test workflows for executors."""

from __future__ import annotations

import snakemake.common.tests
from snakemake_executor_plugin_worksteal import ExecutorSettings


class TestOneProcess(snakemake.common.tests.TestWorkflowsLocalStorageBase):
    """One agent, no MPI."""

    __test__ = True

    def get_executor(self) -> str:
        return "worksteal"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(launcher="local", slots=2)


class TestMpi(TestOneProcess):
    """Four agents in one MPI launch."""

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(launcher="mpiexec", nodes=4, slots=1)
