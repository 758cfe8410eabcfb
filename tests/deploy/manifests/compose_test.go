package manifests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
)

func TestComposeFileIsValidAndItsServerHardened(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{filepath.Join(repository(t), "deploy/compose.yaml")},
		cli.WithName("attend"))
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
	if !service.ReadOnly || len(service.CapDrop) != 1 || service.CapDrop[0] != "ALL" {
		t.Error("the container may write its root file system or keeps capabilities")
	}
	for _, port := range service.Ports {
		if port.HostIP != "127.0.0.1" {
			t.Errorf("port %s is open to the network", port.Published)
		}
	}

	command := exec.Command(serverBinary(t), "--check-config")
	command.Env = os.Environ()
	drain := time.Second // The default drain-wait.
	for name, value := range service.Environment {
		command.Env = append(command.Env, name+"="+*value)
		if name == "ATTEND_DRAIN_TIMEOUT" {
			timeout, err := time.ParseDuration(*value)
			if err != nil {
				t.Fatal(err)
			}
			drain += timeout
		}
	}
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("attend-server --check-config: %v\n%s", err, output)
	}
	if grace := time.Duration(*service.StopGracePeriod); grace < drain+2*time.Second {
		t.Errorf("stop_grace_period %v is too short for a drain of %v", grace, drain)
	}
}
