# A pool of GPU nodes on spot machines for infra/kubernetes/overlays/gpu, and a role for its pods. The cluster has a
# node autoscaler (Cluster Autoscaler or Karpenter), NVIDIA's device plugin and the Pod Identity agent.
locals {
  eks = var.eks_cluster == null ? 0 : 1
}

data "aws_iam_policy_document" "pods" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "pods" {
  count              = local.eks
  name               = "bfr-pods"
  assume_role_policy = data.aws_iam_policy_document.pods.json
}

resource "aws_iam_role_policy_attachment" "pods" {
  count      = local.eks
  role       = aws_iam_role.pods[0].name
  policy_arn = aws_iam_policy.store.arn
}

resource "aws_eks_pod_identity_association" "bfr" {
  count           = local.eks
  cluster_name    = var.eks_cluster
  namespace       = "bfr"
  service_account = "bfr"
  role_arn        = aws_iam_role.pods[0].arn
}

data "aws_iam_policy_document" "nodes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "nodes" {
  count              = local.eks
  name               = "bfr-gpu-nodes"
  assume_role_policy = data.aws_iam_policy_document.nodes.json
}

# What every EKS node needs; the store is the pods' role's.
resource "aws_iam_role_policy_attachment" "nodes" {
  for_each   = var.eks_cluster == null ? toset([]) : toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])
  role       = aws_iam_role.nodes[0].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.key}"
}

resource "aws_eks_node_group" "gpu" {
  count           = local.eks
  cluster_name    = var.eks_cluster
  node_group_name = "bfr-gpu"
  node_role_arn   = aws_iam_role.nodes[0].arn
  subnet_ids      = var.eks_subnets
  ami_type        = "AL2023_x86_64_NVIDIA"
  capacity_type   = "SPOT"
  instance_types  = var.gpu_instance_types
  disk_size       = 100
  labels          = { "bfr/pool" = "gpu" }

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.max_gpu_nodes
  }

  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  taint {
    key    = "bfr/spot"
    value  = "true"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.nodes]
}
