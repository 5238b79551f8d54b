# What a run needs of the store: read the source; list, read, put, delete and abort uploads at the destination. A
# conditional put is a put. What the policy lacks stays refused: other buckets, their settings, versions and policies.
data "aws_partition" "current" {}

resource "aws_iam_policy" "store" {
  name        = "bfr-store"
  description = "Reads the source and writes the destination of bfr"
  policy = templatefile("${path.module}/policies/store.json", {
    source_bucket      = "arn:${data.aws_partition.current.partition}:s3:::${var.source_bucket}"
    destination_bucket = aws_s3_bucket.destination.arn
  })
}
