//! The server put together: arguments, configuration, composition, shutdown.
