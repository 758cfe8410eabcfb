package manifests

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The number that a key of attend.conf has; 0 without it.
func number(config, key string) int64 {
	match := regexp.MustCompile(`(?m)^` + key + ` = (\d+)$`).FindStringSubmatch(config)
	if match == nil {
		return 0
	}
	value, _ := strconv.ParseInt(match[1], 10, 64)
	return value
}

func text(config, key string) string {
	match := regexp.MustCompile(`(?m)^` + key + ` = "?([^"\n]*)"?$`).FindStringSubmatch(config)
	if match == nil {
		return ""
	}
	return match[1]
}

// What the budgets of attend.conf leave of the container's memory for everything that no budget counts: the process, 16 KiB
// for each connection and call, the allocator. A quarter is wanted; a budget that is not said is an error, because its
// default depends on the machine.
func memoryProblems(config string, container *corev1.Container) []string {
	var problems []string
	var sum int64
	for _, key := range []string{"max-memory-in-flight-bytes", "max-layers-bytes", "transport-memory-bytes"} {
		value := number(config, key)
		if value == 0 {
			problems = append(problems, key+" is not set")
		}
		sum += value
	}
	limit := container.Resources.Limits.Memory().Value()
	uncounted := 16 << 10 * (number(config, "max-connections") + number(config, "max-calls"))
	if sum > limit/4*3 {
		problems = append(problems, "the memory budgets exceed three quarters of the limit")
	}
	if uncounted == 0 || sum+uncounted > limit/8*7 {
		problems = append(problems, "budgets, connections and calls exceed seven eighths of the memory limit")
	}
	return problems
}

// Where a file of the configuration comes from: the volume that is mounted there.
func volumeOf(w *workload, container *corev1.Container, path string) *corev1.Volume {
	for _, mount := range container.VolumeMounts {
		if !strings.HasPrefix(path, mount.MountPath+"/") {
			continue
		}
		for i := range w.template.Spec.Volumes {
			if w.template.Spec.Volumes[i].Name == mount.Name {
				return &w.template.Spec.Volumes[i]
			}
		}
	}
	return nil
}

// What is missing before strangers and failures may come: nothing is, when an overlay is fit for production.
func productionProblems(t *testing.T, r rendered) []string {
	t.Helper()
	server, container := r.server(t)
	conf := config(t, r)
	problems := memoryProblems(conf, container)
	require := func(met bool, problem string) {
		if !met {
			problems = append(problems, problem)
		}
	}
	secret := func(key string) bool {
		volume := volumeOf(server, container, text(conf, key))
		return volume != nil && volume.Secret != nil
	}
	require(secret("tls-cert") && secret("tls-key"), "no TLS from a Secret")
	require(secret("tls-client-ca"), "no certificates of clients")
	require(secret("principals"), "no principals from a Secret")
	require(text(conf, "anonymous-roles") == "none", "callers without a credential have roles")
	require(text(conf, "insecure") == "", "plaintext")
	stored := slices.ContainsFunc(server.claims, func(claim corev1.PersistentVolumeClaim) bool {
		return slices.ContainsFunc(container.VolumeMounts, func(mount corev1.VolumeMount) bool {
			size := claim.Spec.Resources.Requests.Storage().Value()
			return mount.Name == claim.Name && strings.HasPrefix(text(conf, "data-dir"), mount.MountPath+"/") &&
				number(conf, "max-data-dir-bytes") > 0 && number(conf, "max-data-dir-bytes") < size/10*9
		})
	})
	require(stored, "no data volume that --max-data-dir-bytes fits into")
	require(len(r.budgets) == 1, "no PodDisruptionBudget")
	require(len(r.autoscalers) == 1, "no HorizontalPodAutoscaler")
	require(len(r.policies) == 1 && namesNamespaces(r), "no NetworkPolicy that names its namespaces")
	require(container.ReadinessProbe != nil && container.ReadinessProbe.HTTPGet != nil &&
		container.LivenessProbe != nil && container.LivenessProbe.HTTPGet != nil, "no httpGet probes")
	require(container.Resources.Limits.Memory().Value() > 0 && container.Resources.Limits.Cpu().Value() > 0, "no limits")
	return problems
}

// Whether every rule of the policy says by name from which namespaces callers come.
func namesNamespaces(r rendered) bool {
	for _, rule := range r.policies[0].Spec.Ingress {
		if len(rule.From) == 0 {
			return false
		}
		for _, from := range rule.From {
			selector := from.NamespaceSelector
			if selector == nil {
				return false
			}
			_, byLabel := selector.MatchLabels["kubernetes.io/metadata.name"]
			byExpression := len(selector.MatchExpressions) == 1 &&
				selector.MatchExpressions[0].Key == "kubernetes.io/metadata.name" && selector.MatchExpressions[0].Operator == "In"
			if !byLabel && !byExpression {
				return false
			}
		}
	}
	return true
}

func TestProductionIsFitForProduction(t *testing.T) {
	for _, overlay := range []string{"production", "production-monitored"} {
		if problems := productionProblems(t, render(t, overlay)); len(problems) > 0 {
			t.Errorf("%s: %v", overlay, problems)
		}
	}
}

func TestMemoryBudgetsFitTheLimits(t *testing.T) {
	forEachOverlay(t, func(t *testing.T, r rendered) {
		_, container := r.server(t)
		if problems := memoryProblems(config(t, r), container); len(problems) > 0 {
			t.Error(problems)
		}
	})
}

// Each thing that production needs is taken away in turn, and its lack is named.
func TestAnOverlayThatLacksSomethingIsRefused(t *testing.T) {
	without := func(key string) func(*rendered) {
		return func(r *rendered) {
			data := r.configMaps[0].Data
			data["attend.conf"] = regexp.MustCompile(`(?m)^`+key+` = .*$`).ReplaceAllString(data["attend.conf"], "")
		}
	}
	said := func(line string) func(*rendered) {
		return func(r *rendered) { r.configMaps[0].Data["attend.conf"] += line + "\n" }
	}
	container := func(change func(*corev1.Container)) func(*rendered) {
		return func(r *rendered) { change(&r.workloads[0].template.Spec.Containers[0]) }
	}
	for name, fault := range map[string]struct {
		take func(*rendered)
		want string
	}{
		"certificate":    {without("tls-cert"), "no TLS"},
		"client CA":      {without("tls-client-ca"), "no certificates of clients"},
		"principals":     {without("principals"), "no principals"},
		"anonymous":      {without("anonymous-roles"), "without a credential"},
		"plaintext":      {said("insecure = true"), "plaintext"},
		"data folder":    {without("data-dir"), "no data volume"},
		"data bound":     {without("max-data-dir-bytes"), "no data volume"},
		"claim":          {func(r *rendered) { r.workloads[0].claims = nil }, "no data volume"},
		"secret volume":  {func(r *rendered) { r.workloads[0].template.Spec.Volumes = nil }, "no TLS"},
		"memory budget":  {without("max-memory-in-flight-bytes"), "is not set"},
		"large budget":   {container(func(c *corev1.Container) { c.Resources.Limits = nil }), "three quarters"},
		"call bound":     {func(r *rendered) { without("max-calls")(r); without("max-connections")(r) }, "seven eighths"},
		"budget":         {func(r *rendered) { r.budgets = nil }, "no PodDisruptionBudget"},
		"autoscaler":     {func(r *rendered) { r.autoscalers = nil }, "no HorizontalPodAutoscaler"},
		"policy":         {func(r *rendered) { r.policies = nil }, "no NetworkPolicy"},
		"any namespace":  {func(r *rendered) { r.policies[0].Spec.Ingress[0].From[0].NamespaceSelector.MatchExpressions = nil }, "no NetworkPolicy"},
		"readiness":      {container(func(c *corev1.Container) { c.ReadinessProbe = nil }), "no httpGet probes"},
		"liveness":       {container(func(c *corev1.Container) { c.LivenessProbe = nil }), "no httpGet probes"},
		"resource limit": {container(func(c *corev1.Container) { c.Resources.Limits = nil }), "no limits"},
	} {
		t.Run(name, func(t *testing.T) {
			r := render(t, "production")
			fault.take(&r)
			if problems := productionProblems(t, r); !strings.Contains(strings.Join(problems, "; "), fault.want) {
				t.Errorf("want %q among %v", fault.want, problems)
			}
		})
	}
}

// Files of the Secrets `attend-tls` and `attend-principals`, as deploy/kubernetes/README.md makes them.
func writeSecrets(t *testing.T, directory string) {
	t.Helper()
	script := `cd "$1/tls" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=attend \
		-keyout tls.key -out tls.crt && cp tls.crt ca.crt && echo '{"principals": []}' > "$1/principals/principals.json"`
	directory, err := filepath.Abs(directory)
	if err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("bash", "-c", script, "bash", directory).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}
