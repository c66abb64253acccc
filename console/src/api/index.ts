/** The API as features see it: the endpoints with their cache tags and what a change does to the cache. */
import type { ThunkAction, UnknownAction } from '@reduxjs/toolkit';
import { endpointsApi } from './endpoints';
import type { Instance } from './types';

const tagged = endpointsApi.enhanceEndpoints({
  addTagTypes: ['Instance', 'Network', 'LaunchOption', 'Session'],
});

// biome-ignore lint/suspicious/noExplicitAny: the state's type depends on this module; only dispatch is used.
type CacheThunk = ThunkAction<void, any, unknown, UnknownAction>;

/** `candidate` unless what is known is newer: answers and events may overtake one another. */
function newer(known: Instance, candidate: Instance): Instance {
  return Date.parse(candidate.updated_at) < Date.parse(known.updated_at) ? known : candidate;
}

/** Puts an instance into every cached view of it: replaces it where it is listed, adds it to the list if it is new. */
export function instanceSeen(item: Instance): CacheThunk {
  return (dispatch) => {
    dispatch(
      api.util.updateQueryData('listInstances', undefined, (list) => {
        for (const page of list.pages) {
          const index = page.items.findIndex((row) => row.id === item.id);
          const known = page.items[index];
          if (known !== undefined) {
            page.items[index] = newer(known, item);
            return;
          }
        }
        list.pages[0]?.items.unshift(item);
      }),
    );
    dispatch(api.util.updateQueryData('getInstance', item.id, (known) => newer(known, item)));
  };
}

/** Takes an instance that no longer exists out of every cached view. */
export function instanceGone(id: string): CacheThunk {
  return (dispatch) => {
    dispatch(
      api.util.updateQueryData('listInstances', undefined, (list) => {
        for (const page of list.pages) {
          page.items = page.items.filter((row) => row.id !== id);
        }
      }),
    );
    dispatch(api.util.invalidateTags([{ type: 'Instance', id }]));
  };
}

interface Lifecycle {
  dispatch: (action: CacheThunk | UnknownAction) => unknown;
  queryFulfilled: Promise<{ data: unknown }>;
}

/** The answer to a change carries the changed instance; where it does not, the list is read again. */
async function showAnswer(id: string | null, { dispatch, queryFulfilled }: Lifecycle): Promise<void> {
  try {
    const { data } = await queryFulfilled;
    const item = data as Instance | null;
    if (item && typeof item.id === 'string' && typeof item.state === 'string') {
      dispatch(instanceSeen(item));
    } else {
      dispatch(api.util.invalidateTags(['Instance']));
    }
  } catch {
    // The component shows the problem. The refusal often means that the row is out of date.
    if (id !== null) {
      dispatch(api.util.invalidateTags(['Instance']));
    }
  }
}

export const api = tagged.enhanceEndpoints({
  endpoints: {
    getMe: { providesTags: ['Session'] },
    listInstances: { providesTags: ['Instance'] },
    getInstance: { providesTags: (_item, _error, id) => [{ type: 'Instance', id }] },
    launchInstance: { onQueryStarted: (_arg, life) => showAnswer(null, life as Lifecycle) },
    startInstance: { onQueryStarted: (id, life) => showAnswer(id, life as Lifecycle) },
    stopInstance: { onQueryStarted: (id, life) => showAnswer(id, life as Lifecycle) },
    rebootInstance: { onQueryStarted: (id, life) => showAnswer(id, life as Lifecycle) },
    terminateInstance: { onQueryStarted: (id, life) => showAnswer(id, life as Lifecycle) },
    getVpc: { providesTags: ['Network'] },
    associateVpcCidrBlock: { invalidatesTags: ['Network'] },
    disassociateVpcCidrBlock: { invalidatesTags: ['Network'] },
    listVpcs: { providesTags: ['Network'] },
    listSubnets: { providesTags: ['Network'] },
    listSecurityGroups: { providesTags: ['Network'] },
    getSecurityGroup: { providesTags: ['Network'] },
    addSecurityGroupRule: { invalidatesTags: ['Network'] },
    removeSecurityGroupRule: { invalidatesTags: ['Network'] },
    listNetworkAcls: { providesTags: ['Network'] },
    getNetworkAcl: { providesTags: ['Network'] },
    addNetworkAclEntry: { invalidatesTags: ['Network'] },
    removeNetworkAclEntry: { invalidatesTags: ['Network'] },
    associateNetworkAcl: { invalidatesTags: ['Network'] },
    listInternetGateways: { providesTags: ['Network'] },
    listNetworkInterfaces: { providesTags: ['Network'] },
    getNetworkInterface: { providesTags: ['Network'] },
    updateNetworkInterface: { invalidatesTags: ['Network'] },
    attachNetworkInterface: { invalidatesTags: ['Network'] },
    detachNetworkInterface: { invalidatesTags: ['Network'] },
    assignPrivateIps: { invalidatesTags: ['Network'] },
    unassignPrivateIp: { invalidatesTags: ['Network'] },
    listRouteTables: { providesTags: ['Network'] },
    getRouteTable: { providesTags: ['Network'] },
    addRoute: { invalidatesTags: ['Network'] },
    removeRoute: { invalidatesTags: ['Network'] },
    associateRouteTable: { invalidatesTags: ['Network'] },
    disassociateRouteTable: { invalidatesTags: ['Network'] },
    moveRouteTableAssociation: { invalidatesTags: ['Network'] },
    listPrefixLists: { providesTags: ['Network'] },
    getPrefixList: { providesTags: ['Network'] },
    updatePrefixList: { invalidatesTags: ['Network'] },
    createVpc: { invalidatesTags: ['Network'] },
    createDefaultVpc: { invalidatesTags: ['Network'] },
    updateVpc: { invalidatesTags: ['Network'] },
    deleteVpc: { invalidatesTags: ['Network'] },
    createSubnet: { invalidatesTags: ['Network'] },
    updateSubnet: { invalidatesTags: ['Network'] },
    deleteSubnet: { invalidatesTags: ['Network'] },
    createSecurityGroup: { invalidatesTags: ['Network'] },
    updateSecurityGroup: { invalidatesTags: ['Network'] },
    deleteSecurityGroup: { invalidatesTags: ['Network'] },
    createNetworkAcl: { invalidatesTags: ['Network'] },
    updateNetworkAcl: { invalidatesTags: ['Network'] },
    deleteNetworkAcl: { invalidatesTags: ['Network'] },
    replaceNetworkAclEntry: { invalidatesTags: ['Network'] },
    createInternetGateway: { invalidatesTags: ['Network'] },
    attachInternetGateway: { invalidatesTags: ['Network'] },
    detachInternetGateway: { invalidatesTags: ['Network'] },
    deleteInternetGateway: { invalidatesTags: ['Network'] },
    createNetworkInterface: { invalidatesTags: ['Network'] },
    deleteNetworkInterface: { invalidatesTags: ['Network'] },
    createRouteTable: { invalidatesTags: ['Network'] },
    updateRouteTable: { invalidatesTags: ['Network'] },
    deleteRouteTable: { invalidatesTags: ['Network'] },
    replaceRoute: { invalidatesTags: ['Network'] },
    createPrefixList: { invalidatesTags: ['Network'] },
    deletePrefixList: { invalidatesTags: ['Network'] },
    listImages: { providesTags: ['LaunchOption'] },
    listInstanceTypes: { providesTags: ['LaunchOption'] },
    listKeyPairs: { providesTags: ['LaunchOption'] },
  },
});

export const {
  useLoginMutation,
  useLogoutMutation,
  useGetMeQuery,
  useListInstancesInfiniteQuery,
  useGetInstanceQuery,
  useLaunchInstanceMutation,
  useStartInstanceMutation,
  useStopInstanceMutation,
  useRebootInstanceMutation,
  useTerminateInstanceMutation,
  useGetConsoleOutputQuery,
  useListImagesQuery,
  useListInstanceTypesQuery,
  useGetVpcQuery,
  useAssociateVpcCidrBlockMutation,
  useDisassociateVpcCidrBlockMutation,
  useListVpcsQuery,
  useListSubnetsQuery,
  useListSecurityGroupsQuery,
  useGetSecurityGroupQuery,
  useAddSecurityGroupRuleMutation,
  useRemoveSecurityGroupRuleMutation,
  useListNetworkAclsQuery,
  useGetNetworkAclQuery,
  useAddNetworkAclEntryMutation,
  useRemoveNetworkAclEntryMutation,
  useAssociateNetworkAclMutation,
  useListInternetGatewaysQuery,
  useListNetworkInterfacesQuery,
  useGetNetworkInterfaceQuery,
  useUpdateNetworkInterfaceMutation,
  useAttachNetworkInterfaceMutation,
  useDetachNetworkInterfaceMutation,
  useAssignPrivateIpsMutation,
  useUnassignPrivateIpMutation,
  useListRouteTablesQuery,
  useGetRouteTableQuery,
  useAddRouteMutation,
  useRemoveRouteMutation,
  useAssociateRouteTableMutation,
  useDisassociateRouteTableMutation,
  useMoveRouteTableAssociationMutation,
  useListPrefixListsQuery,
  useGetPrefixListQuery,
  useUpdatePrefixListMutation,
  useListKeyPairsQuery,
  useCreateVpcMutation,
  useCreateDefaultVpcMutation,
  useUpdateVpcMutation,
  useDeleteVpcMutation,
  useCreateSubnetMutation,
  useUpdateSubnetMutation,
  useDeleteSubnetMutation,
  useCreateSecurityGroupMutation,
  useUpdateSecurityGroupMutation,
  useDeleteSecurityGroupMutation,
  useCreateNetworkAclMutation,
  useUpdateNetworkAclMutation,
  useDeleteNetworkAclMutation,
  useReplaceNetworkAclEntryMutation,
  useCreateInternetGatewayMutation,
  useAttachInternetGatewayMutation,
  useDetachInternetGatewayMutation,
  useDeleteInternetGatewayMutation,
  useCreateNetworkInterfaceMutation,
  useDeleteNetworkInterfaceMutation,
  useCreateRouteTableMutation,
  useUpdateRouteTableMutation,
  useDeleteRouteTableMutation,
  useReplaceRouteMutation,
  useCreatePrefixListMutation,
  useDeletePrefixListMutation,
} = api;
