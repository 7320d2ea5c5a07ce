# /dev/sdX is the machine's disk, here or in a machine started from a rescue system
imagegen flash out/node-1.example.img.zst            # lists the disks of this machine
sudo imagegen flash out/node-1.example.img.zst /dev/sdX
