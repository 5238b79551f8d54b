terraform {
  required_version = ">= 1.6" # OpenTofu 1.6 or later as well
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = var.region
}
