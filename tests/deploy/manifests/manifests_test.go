package manifests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func forEachOverlay(t *testing.T, check func(t *testing.T, r rendered)) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) { check(t, render(t, overlay)) })
	}
}

// The value of a key of attend.conf that is a duration.
func duration(t *testing.T, config, key string) time.Duration {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + key + ` = (\S+)$`).FindStringSubmatch(config)
	if match == nil {
		t.Fatalf("attend.conf has no %s", key)
	}
	value, err := time.ParseDuration(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func config(t *testing.T, r rendered) string {
	t.Helper()
	if len(r.configMaps) != 1 {
		t.Fatalf("want one ConfigMap, got %d", len(r.configMaps))
	}
	return r.configMaps[0].Data["attend.conf"]
}

// The binary whose flags and configuration keys the manifests use.
func serverBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("ATTEND_SERVER_BINARY")
	if path == "" {
		t.Fatal("set ATTEND_SERVER_BINARY to a built attend-server")
	}
	return path
}

func TestMisspeltFieldIsRefused(t *testing.T) {
	r := render(t, "production")
	broken := bytes.Replace(r.yaml, []byte("readOnlyRootFilesystem"), []byte("readOnlyRootFileSystem"), 1)
	if _, err := decode(broken); err == nil || !strings.Contains(err.Error(), "readOnlyRootFileSystem") {
		t.Errorf("want an error that names the field, got %v", err)
	}
}

func TestServerAcceptsArgumentsAndConfiguration(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		_, container := r.server(t)
		// What the cluster mounts, in a folder of this machine; paths of the configuration are those below it.
		directory := t.TempDir()
		text := config(t, r)
		arguments := append([]string{"--check-config"}, container.Args...)
		for _, mount := range container.VolumeMounts {
			here := filepath.Join(directory, mount.Name)
			if err := os.Mkdir(here, 0o700); err != nil {
				t.Fatal(err)
			}
			text = strings.ReplaceAll(text, mount.MountPath+"/", here+"/")
			for i := range arguments {
				arguments[i] = strings.ReplaceAll(arguments[i], mount.MountPath+"/", here+"/")
			}
		}
		if len(container.VolumeMounts) > 1 {
			writeSecrets(t, directory)
		}
		if err := os.WriteFile(filepath.Join(directory, "config", "attend.conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if output, err := exec.Command(serverBinary(t), arguments...).CombinedOutput(); err != nil {
			t.Errorf("attend-server %v: %v\n%s", arguments, err, output)
		}
	})
}

func TestGracePeriodOutlastsTheDrain(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		server, _ := r.server(t)
		grace := time.Duration(*server.template.Spec.TerminationGracePeriodSeconds) * time.Second
		drain := duration(t, config(t, r), "drain-wait") + duration(t, config(t, r), "drain-timeout")
		if grace < drain+2*time.Second {
			t.Errorf("terminationGracePeriodSeconds %v is too short for a drain of %v", grace, drain)
		}
		if wait := duration(t, config(t, r), "drain-wait"); wait < 5*time.Second {
			t.Errorf("drain-wait %v is shorter than endpoints take to leave", wait)
		}
	})
}

func TestPodMeetsTheRestrictedSecurityStandard(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		server, container := r.server(t)
		pod, security := server.template.Spec, container.SecurityContext
		if !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser == 0 {
			t.Error("runs as root")
		}
		if pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Error("no seccomp profile")
		}
		if *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem {
			t.Error("container may gain privileges or write its root file system")
		}
		if drop := security.Capabilities.Drop; len(drop) != 1 || drop[0] != "ALL" || len(security.Capabilities.Add) != 0 {
			t.Error("keeps capabilities")
		}
		if *pod.AutomountServiceAccountToken || *r.serviceAccounts[0].AutomountServiceAccountToken {
			t.Error("has a token of the cluster's API")
		}
		if pod.ServiceAccountName != r.serviceAccounts[0].Name {
			t.Errorf("serviceAccountName %q is not the ServiceAccount's name", pod.ServiceAccountName)
		}
		if r.namespaces[0].Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			t.Error("namespace does not enforce the restricted standard")
		}
	})
}

// The container's port of that name.
func port(t *testing.T, container *corev1.Container, name string) int32 {
	t.Helper()
	for _, port := range container.Ports {
		if port.Name == name {
			return port.ContainerPort
		}
	}
	t.Fatalf("the container has no port named %q", name)
	return 0
}

// TLS and identity of the calls' port do not concern it.
func TestProbesAskTheAdminDoor(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		_, container := r.server(t)
		door := fmt.Sprintf("(?m)^admin-listen = 0\\.0\\.0\\.0:%d$", port(t, container, "admin"))
		if !regexp.MustCompile(door).MatchString(config(t, r)) {
			t.Errorf("attend.conf opens no admin door on the container's port: want %s", door)
		}
		for _, probe := range []struct {
			name, path string
			probe      *corev1.Probe
		}{
			{"startup", "/livez", container.StartupProbe},
			{"readiness", "/readyz", container.ReadinessProbe},
			{"liveness", "/livez", container.LivenessProbe},
		} {
			if probe.probe == nil || probe.probe.HTTPGet == nil {
				t.Fatalf("%s is no httpGet probe", probe.name)
			}
			get := probe.probe.HTTPGet
			if get.Path != probe.path || get.Port.StrVal != "admin" || get.Scheme == corev1.URISchemeHTTPS {
				t.Errorf("%s probe asks %v", probe.name, get)
			}
		}
	})
}

func TestScrapesReachTheAdminDoorAndNobodyElseDoes(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		scraped := 0
		for _, service := range r.services {
			for _, port := range service.Spec.Ports {
				if port.TargetPort.StrVal == "admin" {
					scraped++
				}
			}
		}
		if scraped != 1 {
			t.Errorf("want one Service with the port admin, so that each pod is scraped once, got %d", scraped)
		}
		for _, rule := range r.policies[0].Spec.Ingress {
			for _, port := range rule.Ports {
				if port.Port.StrVal != "admin" {
					continue
				}
				for _, from := range rule.From {
					if from.NamespaceSelector == nil || from.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] == "" {
						t.Error("the NetworkPolicy opens the admin door to more than one namespace")
					}
				}
			}
		}
	})
}

func TestProductionIsScraped(t *testing.T) {
	r := render(t, "production-monitored")
	if len(r.monitors) != 1 || len(r.monitors[0].Spec.Endpoints) != 1 {
		t.Fatal("want one ServiceMonitor with one endpoint")
	}
	monitor := r.monitors[0]
	if endpoint := monitor.Spec.Endpoints[0]; endpoint.Port != "admin" || endpoint.Path != "/metrics" {
		t.Errorf("the ServiceMonitor scrapes port %q, path %q", endpoint.Port, endpoint.Path)
	}
	selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range r.services {
		if !selector.Matches(labels.Set(service.Labels)) {
			t.Errorf("the ServiceMonitor does not select Service %s", service.Name)
		}
		if job := service.Labels[monitor.Spec.JobLabel]; job != "attend" {
			t.Errorf("Service %s is the job %q; the alert rules expect attend", service.Name, job)
		}
	}
}

func TestEverySelectorFindsThePods(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		server, _ := r.server(t)
		pod := labels.Set(server.template.Labels)
		found := func(what string, selector *metav1.LabelSelector) {
			t.Helper()
			if s, err := metav1.LabelSelectorAsSelector(selector); err != nil || s.Empty() || !s.Matches(pod) {
				t.Errorf("%s does not select %v: %v", what, pod, err)
			}
		}
		found(server.kind, server.selector)
		for _, service := range r.services {
			found("Service "+service.Name, &metav1.LabelSelector{MatchLabels: service.Spec.Selector})
		}
		for _, policy := range r.policies {
			found("NetworkPolicy "+policy.Name, &policy.Spec.PodSelector)
		}
		for _, budget := range r.budgets {
			found("PodDisruptionBudget "+budget.Name, budget.Spec.Selector)
		}
		for _, spread := range server.template.Spec.TopologySpreadConstraints {
			found("topology spread over "+spread.TopologyKey, spread.LabelSelector)
		}
		for _, key := range []string{"name", "component", "part-of", "version"} {
			if server.labels["app.kubernetes.io/"+key] == "" {
				t.Errorf("the workload has no label app.kubernetes.io/%s", key)
			}
		}
	})
}

func TestServicesReachTheServersPort(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		_, container := r.server(t)
		headless := 0
		for _, service := range r.services {
			if service.Spec.ClusterIP == corev1.ClusterIPNone {
				headless++
			}
			if target := service.Spec.Ports[0].TargetPort.StrVal; target != container.Ports[0].Name {
				t.Errorf("Service %s targets port %q, the container's is %q", service.Name, target, container.Ports[0].Name)
			}
		}
		if len(r.services) != 2 || headless != 1 {
			t.Errorf("want a ClusterIP and a headless Service, got %d Services, %d headless", len(r.services), headless)
		}
	})
}

func TestProductionScalesSpreadsAndSurvivesDisruption(t *testing.T) {
	r := render(t, "production")
	server, container := r.server(t)
	if len(r.autoscalers) != 1 || len(r.budgets) != 1 || len(r.policies) != 1 {
		t.Fatal("want one HorizontalPodAutoscaler, one PodDisruptionBudget and one NetworkPolicy")
	}
	scaler := r.autoscalers[0].Spec
	if scaler.ScaleTargetRef.Name != server.name || scaler.Metrics[0].ContainerResource.Container != container.Name {
		t.Error("the HorizontalPodAutoscaler scales something else")
	}
	if server.replicas != nil {
		t.Error("the workload and the HorizontalPodAutoscaler both set the number of replicas")
	}
	if scaler.ScaleTargetRef.Kind != server.kind {
		t.Errorf("the HorizontalPodAutoscaler scales a %s, the servers are a %s", scaler.ScaleTargetRef.Kind, server.kind)
	}
	if *scaler.MinReplicas < 3 {
		t.Error("fewer replicas than zones")
	}
	keys := map[string]bool{}
	for _, spread := range server.template.Spec.TopologySpreadConstraints {
		keys[spread.TopologyKey] = true
	}
	if !keys["topology.kubernetes.io/zone"] || !keys["kubernetes.io/hostname"] {
		t.Errorf("replicas are spread over %v only", keys)
	}
}

func TestKubeScoreHasNothingCritical(t *testing.T) {
	r := render(t, "production")
	command := exec.Command("go", "run", "github.com/zegl/kube-score/cmd/kube-score@v1.20.0", "score",
		"--output-format", "ci",
		// A tag names one image here, so that pulling it again brings nothing new.
		"--ignore-test", "container-image-pull-policy",
		// Topology spread constraints keep replicas apart.
		"--ignore-test", "statefulset-has-host-podantiaffinity", "-")
	command.Stdin = bytes.NewReader(r.yaml)
	output, err := command.CombinedOutput()
	if err != nil || bytes.Contains(output, []byte("[WARNING]")) {
		t.Errorf("kube-score: %v\n%s", err, output)
	}
}
