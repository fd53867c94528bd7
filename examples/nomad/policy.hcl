# All that the agent's token needs: nomad acl policy apply weft policy.hcl
namespace "*" {
  capabilities = ["read-job"]
}

node {
  policy = "read"
}
