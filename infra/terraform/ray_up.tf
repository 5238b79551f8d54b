# The roles of infra/ray/aws.yaml: the head may start and end this cluster's nodes, a worker may not.
data "aws_caller_identity" "current" {}

locals {
  ray_up = var.ray_up ? toset(["head", "worker"]) : toset([])
}

data "aws_iam_policy_document" "machines" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "ray" {
  for_each           = local.ray_up
  name               = "bfr-ray-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.machines.json
}

resource "aws_iam_instance_profile" "ray" {
  for_each = local.ray_up
  name     = "bfr-ray-${each.key}"
  role     = aws_iam_role.ray[each.key].name
}

resource "aws_iam_role_policy_attachment" "ray_store" {
  for_each   = local.ray_up
  role       = aws_iam_role.ray[each.key].name
  policy_arn = aws_iam_policy.store.arn
}

data "aws_iam_policy_document" "environment" {
  count = var.ray_up ? 1 : 0

  statement {
    sid       = "ReadTheClustersToken"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.ray_up_secret_arn]
  }
}

resource "aws_iam_role_policy" "environment" {
  for_each = local.ray_up
  name     = "environment"
  role     = aws_iam_role.ray[each.key].id
  policy   = data.aws_iam_policy_document.environment[0].json
}

resource "aws_iam_role_policy" "launcher" {
  count = var.ray_up ? 1 : 0
  name  = "launcher"
  role  = aws_iam_role.ray["head"].id
  policy = templatefile("${path.module}/policies/launcher.json", {
    partition      = data.aws_partition.current.partition
    region         = var.region
    account        = data.aws_caller_identity.current.account_id
    cluster        = "bfr"
    instance_types = var.gpu_instance_types
    worker_role    = aws_iam_role.ray["worker"].arn
  })
}
