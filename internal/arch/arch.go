// Package arch is the one table of what differs between processor
// architectures: names, kernel package, boot path, QEMU machine, console and
// partition types. Code asks this table; it never switches on an architecture.
package arch

import (
	"debug/elf"
	"fmt"
	"sort"
	"strings"
)

// Boot says how firmware reaches the kernel.
type Boot string

const (
	// BootEFI is UEFI firmware, systemd-boot and a unified kernel image.
	BootEFI Boot = "efi"
	// BootPReP is Open Firmware, GRUB in a PReP partition.
	BootPReP Boot = "prep"
)

// Arch describes one architecture.
type Arch struct {
	Go     string // GOARCH
	GoARM  string // GOARM, only for 32-bit arm
	Debian string // Debian architecture name
	Kernel string // Debian kernel metapackage of the QEMU profile
	// KernelFile is the kernel's name under /boot, before its release.
	KernelFile string
	Boot       Boot
	EFIName    string // file name systemd-boot has under EFI/BOOT
	EFIBoot    string // systemd-boot's file under /usr/lib/systemd/boot/efi
	EFIStub    string // UKI stub under /usr/lib/systemd/boot/efi
	// Loader is the path of the dynamic loader in Debian's packages.
	Loader string
	// Triplet is Debian's multiarch library folder under /usr/lib.
	Triplet string
	// ELFMachine and ELFClass are those of programs; all byte orders are little-endian.
	ELFMachine elf.Machine
	ELFClass   elf.Class
	// Partition types of the Discoverable Partitions Specification.
	RootType, UsrType, UsrVerityType string
	// RepartSuffix is systemd's architecture name in partition type identifiers ("usr-x86-64").
	RepartSuffix string
	// Console is the kernel's serial console in QEMU.
	Console string
	QEMU    QEMU
}

// QEMU says how the architecture's virtual machine is started.
type QEMU struct {
	Binary  string // qemu-system-…
	Package string // Debian package that has Binary
	Machine string // -machine
	CPU     string // -cpu under TCG
	// Firmware packages and the code and variable-store files in them.
	FirmwarePackage, FirmwareCode, FirmwareVars string
}

var table = []Arch{
	{
		Go: "amd64", Debian: "amd64", Kernel: "linux-image-cloud-amd64", KernelFile: "vmlinuz", Boot: BootEFI,
		EFIName: "BOOTX64.EFI", EFIBoot: "systemd-bootx64.efi", EFIStub: "linuxx64.efi.stub",
		Loader: "/usr/lib64/ld-linux-x86-64.so.2", Triplet: "x86_64-linux-gnu",
		ELFMachine: elf.EM_X86_64, ELFClass: elf.ELFCLASS64,
		RootType:      "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
		UsrType:       "8484680c-9521-48c6-9c11-b0720656f69e",
		UsrVerityType: "77ff5f63-e7b6-4633-acf4-1565b864c0e6",
		RepartSuffix:  "x86-64",
		Console:       "ttyS0",
		QEMU: QEMU{
			Binary: "qemu-system-x86_64", Package: "qemu-system-x86", Machine: "q35", CPU: "max",
			FirmwarePackage: "ovmf", FirmwareCode: "/usr/share/OVMF/OVMF_CODE_4M.fd", FirmwareVars: "/usr/share/OVMF/OVMF_VARS_4M.fd",
		},
	},
	{
		Go: "arm64", Debian: "arm64", Kernel: "linux-image-cloud-arm64", KernelFile: "vmlinuz", Boot: BootEFI,
		EFIName: "BOOTAA64.EFI", EFIBoot: "systemd-bootaa64.efi", EFIStub: "linuxaa64.efi.stub",
		Loader: "/usr/lib/ld-linux-aarch64.so.1", Triplet: "aarch64-linux-gnu",
		ELFMachine: elf.EM_AARCH64, ELFClass: elf.ELFCLASS64,
		RootType:      "b921b045-1df0-41c3-af44-4c6f280d3fae",
		UsrType:       "b0e01050-ee5f-4390-949a-9101b17104e9",
		UsrVerityType: "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",
		RepartSuffix:  "arm64",
		Console:       "ttyAMA0",
		QEMU: QEMU{
			Binary: "qemu-system-aarch64", Package: "qemu-system-arm", Machine: "virt", CPU: "max,pauth-impdef=on",
			FirmwarePackage: "qemu-efi-aarch64", FirmwareCode: "/usr/share/AAVMF/AAVMF_CODE.fd", FirmwareVars: "/usr/share/AAVMF/AAVMF_VARS.fd",
		},
	},
	{
		Go: "arm", GoARM: "7", Debian: "armhf", Kernel: "linux-image-armmp-lpae", KernelFile: "vmlinuz", Boot: BootEFI,
		EFIName: "BOOTARM.EFI", EFIBoot: "systemd-bootarm.efi", EFIStub: "linuxarm.efi.stub",
		Loader: "/usr/lib/ld-linux-armhf.so.3", Triplet: "arm-linux-gnueabihf",
		ELFMachine: elf.EM_ARM, ELFClass: elf.ELFCLASS32,
		RootType:      "69dad710-2ce4-4e3c-b16c-21a1d49abed3",
		UsrType:       "7d0359a3-02b3-4f0a-865c-654403e70625",
		UsrVerityType: "c215d751-7bcd-4649-be90-6627490a4c05",
		RepartSuffix:  "arm",
		Console:       "ttyAMA0",
		QEMU: QEMU{
			Binary: "qemu-system-arm", Package: "qemu-system-arm", Machine: "virt", CPU: "cortex-a15",
			FirmwarePackage: "qemu-efi-arm", FirmwareCode: "/usr/share/AAVMF/AAVMF32_CODE.fd", FirmwareVars: "/usr/share/AAVMF/AAVMF32_VARS.fd",
		},
	},
	{
		Go: "ppc64le", Debian: "ppc64el", Kernel: "linux-image-powerpc64le", KernelFile: "vmlinux", Boot: BootPReP,
		Loader: "/usr/lib64/ld64.so.2", Triplet: "powerpc64le-linux-gnu",
		ELFMachine: elf.EM_PPC64, ELFClass: elf.ELFCLASS64,
		RootType:      "c31c45e6-3f39-412e-80fb-4809c4980599",
		UsrType:       "15bb03af-77e7-4d4a-b12b-c0d084f7491c",
		UsrVerityType: "ee2b9983-21e8-4153-86d9-b6901a54d1ce",
		RepartSuffix:  "ppc64-le",
		Console:       "hvc0",
		QEMU:          QEMU{Binary: "qemu-system-ppc64", Package: "qemu-system-ppc", Machine: "pseries", CPU: "power9"},
	},
}

// Get returns the architecture with the given Go name.
func Get(goarch string) (Arch, error) {
	for _, a := range table {
		if a.Go == goarch {
			return a, nil
		}
	}
	return Arch{}, fmt.Errorf("unknown architecture %q; Kiln knows %s", goarch, strings.Join(Names(), ", "))
}

// Names lists the Go names of all architectures, sorted.
func Names() []string {
	var n []string
	for _, a := range table {
		n = append(n, a.Go)
	}
	sort.Strings(n)
	return n
}
