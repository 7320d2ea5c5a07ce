package flash

import (
	"reflect"
	"testing"
)

const plistHead = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
`

// What diskutil says on a Mac with a card in its reader, in part.
const (
	plistList = plistHead + `<dict>
	<key>AllDisksAndPartitions</key>
	<array>
		<dict>
			<key>DeviceIdentifier</key><string>disk0</string>
			<key>Partitions</key>
			<array>
				<dict><key>Content</key><string>Apple_APFS</string><key>DeviceIdentifier</key><string>disk0s2</string></dict>
			</array>
		</dict>
		<dict>
			<key>DeviceIdentifier</key><string>disk4</string>
			<key>Partitions</key>
			<array>
				<dict><key>DeviceIdentifier</key><string>disk4s1</string><key>MountPoint</key><string>/Volumes/BOOT &amp; co</string></dict>
			</array>
		</dict>
	</array>
	<key>WholeDisks</key>
	<array><string>disk0</string><string>disk4</string></array>
</dict>
</plist>`
	plistRoot = plistHead + `<dict>
	<key>APFSPhysicalStores</key>
	<array><dict><key>APFSPhysicalStore</key><string>disk0s2</string></dict></array>
	<key>ParentWholeDisk</key><string>disk3</string>
</dict>
</plist>`
	plistCard = plistHead + `<dict>
	<key>DeviceBlockSize</key><integer>512</integer>
	<key>MediaName</key><string>SD Card Reader</string>
	<key>RemovableMediaOrExternalDevice</key><true/>
	<key>TotalSize</key><integer>31914983424</integer>
	<key>WritableMedia</key><false/>
</dict>
</plist>`
	plistSSD = plistHead + `<dict>
	<key>MediaName</key><string>APPLE SSD</string>
	<key>RemovableMediaOrExternalDevice</key><false/>
	<key>TotalSize</key><integer>500277792768</integer>
	<key>WritableMedia</key><true/>
</dict>
</plist>`
)

func plist(t testing.TB, text string) map[string]any {
	t.Helper()
	m, err := parsePlist([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMacDisks(t *testing.T) {
	all, root := plist(t, plistList), plist(t, plistRoot)
	if got := texts(all["WholeDisks"]); !reflect.DeepEqual(got, []string{"disk0", "disk4"}) {
		t.Errorf("disks %q", got)
	}
	for want, got := range map[*Disk]Disk{
		{Path: "/dev/disk0", Size: 500277792768, Model: "APPLE SSD", System: true}:                                                                             macDisk("disk0", plist(t, plistSSD), all, root),
		{Path: "/dev/disk4", Size: 31914983424, Model: "SD Card Reader", Removable: true, ReadOnly: true, Mounts: []string{"/Volumes/BOOT & co"}, sector: 512}: macDisk("disk4", plist(t, plistCard), all, root),
	} {
		if !reflect.DeepEqual(got, *want) {
			t.Errorf("%+v, want %+v", got, *want)
		}
	}
}

func FuzzPlist(f *testing.F) {
	for _, s := range []string{plistList, plistRoot, plistCard, "<dict><key>a</key><array><integer>x</integer></array></dict>", "<dict>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parsePlist(b)
		if err != nil {
			return
		}
		macDisk("disk0", m, m, m)
		texts(m["WholeDisks"])
	})
}
