"""Attribution methods: each turns requests into a row plan, one file per family."""
