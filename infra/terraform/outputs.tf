output "destination" {
  description = "DST for bfr."
  value       = "s3://${aws_s3_bucket.destination.id}"
}

output "ray_instance_profiles" {
  description = "For infra/ray/aws.yaml."
  value       = { for name, profile in aws_iam_instance_profile.ray : name => profile.arn }
}
