//! Runs plugins in worker processes: hosts, workers, leases, invocations.
