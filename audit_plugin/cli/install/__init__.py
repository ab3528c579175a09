"""Sets up the machine: doctor, plugin link, MongoDB."""
