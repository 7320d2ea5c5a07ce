# BUCKET, in REGION, is a private bucket of yours: the image holds the node's keys; KEY_ID and KEY_SECRET are HMAC keys that read it
ibmcloud cos upload --bucket "$BUCKET" --region "$REGION" --key node-1.example.ova.gz --file out/node-1.example.ova.gz
ibmcloud pi workspace target "$WORKSPACE_CRN"
# TIER is how fast the disk is, such as tier0
ibmcloud pi image import node-1-example --bucket "$BUCKET" --region "$REGION" --image-file-name node-1.example.ova.gz --access-key "$KEY_ID" --secret-key "$KEY_SECRET" --storage-tier "$TIER"
until ibmcloud pi image import-show | grep -E 'completed|failed'; do sleep 60; done
ibmcloud cos object-delete --bucket "$BUCKET" --region "$REGION" --key node-1.example.ova.gz --force
# ADDRESS is the node's in the cluster file; without DHCP in the subnet it needs one there
ibmcloud pi instance create node-1-example --image node-1-example --subnets "$SUBNET $ADDRESS" --sys-type s1022 --processor-type shared --processors 1 --memory 8
