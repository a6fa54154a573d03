"""DynamoDB: live tables, or the files of an export to S3."""
