"""Pure rules: lives of job, submission and delivery; errors; prices. Imports nothing but itself and pydantic."""
