-- One server, one database for each that keeps something.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE perpetune;
