/**
 * What the machines that run the whole suite cannot do, and why. A skip that names one of these is no failure there;
 * every other skip is. Each entry is a gap in what is tested: keep the list short and its reasons true.
 */
export const machineLimits = {
  'crun-cgroups': 'crun 1.8 refuses a host that mounts cgroup v1 controllers beside cgroup2',
} as const;

export type MachineLimit = keyof typeof machineLimits;
