# All that the agent's token needs: consul acl policy create -name weft -rules @policy.hcl
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
