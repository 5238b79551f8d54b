variable "region" {
  description = "Where the bucket is, and the nodes: reading from another region costs money and time."
  type        = string
}

variable "source_bucket" {
  description = "The bucket with the images, which exists. Nothing here may write to it."
  type        = string
}

variable "destination_bucket" {
  description = "The bucket for restored datasets, which is made."
  type        = string
}

variable "eks_cluster" {
  description = "An EKS cluster to give a pool of GPU nodes to; null makes no pool."
  type        = string
  default     = null
}

variable "eks_subnets" {
  description = "Private subnets of that cluster."
  type        = list(string)
  default     = []
}

variable "ray_up" {
  description = "Whether to make the roles of infra/ray/aws.yaml."
  type        = bool
  default     = false
}

variable "ray_up_secret_arn" {
  description = "The secret in AWS Secrets Manager with the nodes' environment, made by hand: its value would be in the state."
  type        = string
  default     = null

  validation {
    condition     = !var.ray_up || var.ray_up_secret_arn != null
    error_message = "expected ray_up_secret_arn with ray_up, found none; infra/clusters.md says how to make the secret"
  }
}

variable "gpu_instance_types" {
  description = "What a GPU node may be. Several types find spot capacity sooner."
  type        = list(string)
  default     = ["g6.2xlarge", "g5.2xlarge"]
}

variable "max_gpu_nodes" {
  description = "GPU nodes at most; none is kept while no run asks for one."
  type        = number
  default     = 16
}
