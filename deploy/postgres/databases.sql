-- One database for each service with state.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE perpetune;
