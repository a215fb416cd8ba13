"""The review page: kept frames that a person should look at, and buttons that write feedback."""
