"""The steps of a refresh and of a check, without Prefect. Imports everything below it except the gateway."""
