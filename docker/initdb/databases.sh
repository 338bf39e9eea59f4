#!/bin/sh
# Runs once, when the volume of PostgreSQL is empty: one database for each server.
set -eu

psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
create database prefect;
create database mlflow;
SQL

# The search of Prefect's server uses trigram indexes.
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=prefect <<'SQL'
create extension if not exists pg_trgm;
SQL
