# --private: the image holds the node's keys
openstack image create node-1-example --private --container-format bare --disk-format qcow2 --min-disk 8 --min-ram 2048 --property hw_firmware_type=uefi --property hw_machine_type=virt --property architecture=aarch64 --property os_type=linux --file out/node-1.example.qcow2
openstack server create node-1-example --image node-1-example --flavor "$FLAVOR" --network "$NETWORK"
