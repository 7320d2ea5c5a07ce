# /dev/sdX is the card, in a reader
imagegen flash out/node-1.example.img.zst            # lists the cards and disks of this machine
sudo imagegen flash out/node-1.example.img.zst /dev/sdX
