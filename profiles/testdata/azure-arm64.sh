# GROUP is your resource group, in the location of its own
az disk create --resource-group "$GROUP" --name node-1-example --os-type Linux --hyper-v-generation V2 --architecture Arm64 --sku StandardSSD_LRS --upload-type Upload --upload-size-bytes "$(stat -c %s out/node-1.example.vhd)"
SAS=$(az disk grant-access --resource-group "$GROUP" --name node-1-example --access-level Write --duration-in-seconds 86400 --query '[accessSAS, accessSas][?@] | [0]' --output tsv)
azcopy copy out/node-1.example.vhd "$SAS" --blob-type PageBlob
az disk revoke-access --resource-group "$GROUP" --name node-1-example
az disk update --resource-group "$GROUP" --name node-1-example --size-gb 20
# attached as it is: the node needs no provisioning, and is no template of others
az vm create --resource-group "$GROUP" --name node-1-example --size Standard_B2pls_v2 --attach-os-disk node-1-example --os-type Linux
