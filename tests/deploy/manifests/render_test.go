// Package manifests checks what deploy/ tells Kubernetes and Compose: it renders the overlays as kubectl does, decodes the
// result with Kubernetes' own types, where an unknown or misspelt field is an error, and holds the parts to each other
// and to the server's real flags.
package manifests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var overlays = []string{"single-node", "production", "production-monitored"}

// What one overlay asks the cluster for.
type rendered struct {
	yaml            []byte
	namespaces      []*corev1.Namespace
	serviceAccounts []*corev1.ServiceAccount
	configMaps      []*corev1.ConfigMap
	services        []*corev1.Service
	workloads       []*workload
	autoscalers     []*autoscalingv2.HorizontalPodAutoscaler
	budgets         []*policyv1.PodDisruptionBudget
	policies        []*networkingv1.NetworkPolicy
	monitors        []*monitoringv1.ServiceMonitor
}

// What runs the pods, a Deployment or a StatefulSet.
type workload struct {
	kind, name  string
	labels      map[string]string
	replicas    *int32
	selector    *metav1.LabelSelector
	serviceName string
	template    corev1.PodTemplateSpec
	claims      []corev1.PersistentVolumeClaim
}

func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "deploy")); err != nil {
		t.Fatal(err)
	}
	return root
}

func render(t *testing.T, overlay string) rendered {
	t.Helper()
	directory := filepath.Join(repository(t), "deploy/kubernetes/overlays", overlay)
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		t.Fatalf("kustomize: %v", err)
	}
	yaml, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	result, err := decode(yaml)
	if err != nil {
		t.Fatalf("%s: %v", overlay, err)
	}
	return result
}

// Decodes as the API server does with strict field validation.
func decode(yaml []byte) (rendered, error) {
	result := rendered{yaml: yaml}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return result, err
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme,
		json.SerializerOptions{Yaml: true, Strict: true})
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(yaml)))
	buffer := make([]byte, 1<<20)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return result, nil
		} else if err != nil {
			return result, err
		}
		object, _, err := decoder.Decode(buffer[:n], nil, nil)
		if err != nil {
			return result, err
		}
		if err := result.add(object); err != nil {
			return result, err
		}
	}
}

func (r *rendered) add(object runtime.Object) error {
	switch object := object.(type) {
	case *corev1.Namespace:
		r.namespaces = append(r.namespaces, object)
	case *corev1.ServiceAccount:
		r.serviceAccounts = append(r.serviceAccounts, object)
	case *corev1.ConfigMap:
		r.configMaps = append(r.configMaps, object)
	case *corev1.Service:
		r.services = append(r.services, object)
	case *appsv1.Deployment:
		spec := object.Spec
		r.workloads = append(r.workloads, &workload{kind: "Deployment", name: object.Name, labels: object.Labels,
			replicas: spec.Replicas, selector: spec.Selector, template: spec.Template})
	case *appsv1.StatefulSet:
		spec := object.Spec
		r.workloads = append(r.workloads, &workload{kind: "StatefulSet", name: object.Name, labels: object.Labels,
			replicas: spec.Replicas, selector: spec.Selector, serviceName: spec.ServiceName, template: spec.Template,
			claims: spec.VolumeClaimTemplates})
	case *autoscalingv2.HorizontalPodAutoscaler:
		r.autoscalers = append(r.autoscalers, object)
	case *policyv1.PodDisruptionBudget:
		r.budgets = append(r.budgets, object)
	case *networkingv1.NetworkPolicy:
		r.policies = append(r.policies, object)
	case *monitoringv1.ServiceMonitor:
		r.monitors = append(r.monitors, object)
	default:
		return errors.New("no check for " + object.GetObjectKind().GroupVersionKind().String())
	}
	return nil
}

// What runs the servers, and its one container.
func (r *rendered) server(t *testing.T) (*workload, *corev1.Container) {
	t.Helper()
	if len(r.workloads) != 1 || len(r.workloads[0].template.Spec.Containers) != 1 {
		t.Fatalf("want one workload with one container, got %d workloads", len(r.workloads))
	}
	return r.workloads[0], &r.workloads[0].template.Spec.Containers[0]
}
