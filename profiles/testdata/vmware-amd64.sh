govc import.ova -name node-1-example out/node-1.example.ova
govc vm.disk.change -vm node-1-example -size 20G
govc vm.power -on node-1-example
