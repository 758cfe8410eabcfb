package manifests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The service of these files of deploy/, merged as `docker compose -f ... -f ...` merges them.
func composed(t *testing.T, files ...string) types.ServiceConfig {
	t.Helper()
	for i := range files {
		files[i] = filepath.Join(repository(t), "deploy", files[i])
	}
	options, err := cli.NewProjectOptions(files, cli.WithName("attend"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	service, err := project.GetService("attend")
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// Holds a service to what every one needs, and its environment to the server's real flags.
func checkService(t *testing.T, service types.ServiceConfig) {
	t.Helper()
	if !service.ReadOnly || len(service.CapDrop) != 1 || service.CapDrop[0] != "ALL" {
		t.Error("the container may write its root file system or keeps capabilities")
	}
	// What is mounted, in a folder of this machine.
	directory := t.TempDir()
	for _, name := range []string{"tls", "principals"} {
		if err := os.Mkdir(filepath.Join(directory, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeSecrets(t, directory)
	command := exec.Command(serverBinary(t), "--check-config")
	command.Env = os.Environ()
	drain := 5 * time.Second // The drain-wait that deploy/envoy/README.md asks for; the default is shorter.
	var budgets int64
	stored := false
	for name, value := range service.Environment {
		command.Env = append(command.Env, name+"="+strings.ReplaceAll(*value, "/run/attend/", directory+"/"))
		switch name {
		case "ATTEND_DRAIN_TIMEOUT":
			timeout, err := time.ParseDuration(*value)
			if err != nil {
				t.Fatal(err)
			}
			drain += timeout
		case "ATTEND_MAX_MEMORY_IN_FLIGHT_BYTES", "ATTEND_MAX_LAYERS_BYTES", "ATTEND_TRANSPORT_MEMORY_BYTES":
			size := resource.MustParse(strings.TrimSuffix(*value, "B"))
			budgets += size.Value()
		case "ATTEND_DATA_DIR":
			for _, volume := range service.Volumes {
				stored = stored || volume.Type == "volume" && strings.HasPrefix(*value, volume.Target+"/")
			}
		}
	}
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("attend-server --check-config: %v\n%s", err, output)
	}
	if grace := time.Duration(*service.StopGracePeriod); grace < drain+2*time.Second {
		t.Errorf("stop_grace_period %v is too short for a drain of %v", grace, drain)
	}
	if !stored {
		t.Error("no data volume")
	}
	if limit := int64(service.MemLimit); budgets == 0 || budgets > limit/4*3 {
		t.Errorf("memory budgets of %d exceed three quarters of the limit, %d", budgets, limit)
	}
}

func TestComposeFileIsValidAndItsServerHardened(t *testing.T) {
	service := composed(t, "compose.yaml")
	checkService(t, service)
	for _, port := range service.Ports {
		if port.HostIP != "127.0.0.1" {
			t.Errorf("port %s is open to the network", port.Published)
		}
	}
}

func TestComposeFileForOtherMachinesHasTlsAndIdentities(t *testing.T) {
	service := composed(t, "compose.yaml", "compose.production.yaml")
	checkService(t, service)
	for name, want := range map[string]string{"ATTEND_INSECURE": "false", "ATTEND_ANONYMOUS_ROLES": "none"} {
		if got := service.Environment[name]; got == nil || *got != want {
			t.Errorf("%s is not %s", name, want)
		}
	}
	for _, name := range []string{"ATTEND_TLS_CERT", "ATTEND_TLS_KEY", "ATTEND_TLS_CLIENT_CA", "ATTEND_PRINCIPALS"} {
		if service.Environment[name] == nil {
			t.Errorf("%s is not set", name)
		}
	}
	for _, port := range service.Ports {
		if port.Target != 50051 && port.HostIP != "127.0.0.1" {
			t.Errorf("port %s is open to the network", port.Published)
		}
	}
}
