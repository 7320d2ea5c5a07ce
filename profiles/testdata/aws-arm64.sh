# BUCKET is a private S3 bucket of yours: the image holds the node's keys
aws s3 cp out/node-1.example.vmdk "s3://$BUCKET/node-1.example.vmdk"
TASK=$(aws ec2 import-snapshot --description node-1-example --disk-container "Format=VMDK,UserBucket={S3Bucket=$BUCKET,S3Key=node-1.example.vmdk}" --query ImportTaskId --output text)
aws ec2 wait snapshot-imported --import-task-ids "$TASK"
SNAPSHOT=$(aws ec2 describe-import-snapshot-tasks --import-task-ids "$TASK" --query 'ImportSnapshotTasks[0].SnapshotTaskDetail.SnapshotId' --output text)
aws s3 rm "s3://$BUCKET/node-1.example.vmdk"
AMI=$(aws ec2 register-image --name node-1-example --architecture arm64 --virtualization-type hvm --boot-mode uefi --ena-support --root-device-name /dev/xvda --block-device-mappings "DeviceName=/dev/xvda,Ebs={SnapshotId=$SNAPSHOT,VolumeSize=20,VolumeType=gp3,DeleteOnTermination=true}" --query ImageId --output text)
aws ec2 run-instances --image-id "$AMI" --instance-type t4g.medium --subnet-id "$SUBNET" --tag-specifications 'ResourceType=instance,Tags=[{Key=Name,Value=node-1-example}]'
