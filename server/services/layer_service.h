// attend.v1.LayerService: creates, describes and deletes the layers that Attend calls by name.
#ifndef ATTEND_SERVER_SERVICES_LAYER_SERVICE_H_
#define ATTEND_SERVER_SERVICES_LAYER_SERVICE_H_

#include "server/rpc/unary_call.h"
#include "server/services/create_layer_call.h"

namespace attend::server {

// Adds the service's methods. GetLayer and ListLayers are answered also by a busy server. All arguments must outlive
// every call.
void AddLayerService(const UploadServices& uploads, const RequestServices& requests, MethodTable& methods);

}  // namespace attend::server

#endif  // ATTEND_SERVER_SERVICES_LAYER_SERVICE_H_
