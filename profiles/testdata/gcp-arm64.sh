# BUCKET is a private bucket of yours: the image holds the node's keys
gcloud storage cp out/node-1.example.tar.gz "gs://$BUCKET/node-1.example.tar.gz"
gcloud compute images create node-1-example --source-uri "gs://$BUCKET/node-1.example.tar.gz" --architecture ARM64 --guest-os-features UEFI_COMPATIBLE,GVNIC,VIRTIO_SCSI_MULTIQUEUE
gcloud storage rm "gs://$BUCKET/node-1.example.tar.gz"
gcloud compute instances create node-1-example --zone "$ZONE" --machine-type t2a-standard-2 --image node-1-example --boot-disk-size 20GB
